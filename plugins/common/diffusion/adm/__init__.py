"""The U-Net of ADM (Dhariwal & Nichol 2021), which GLIDE, Karlo and DeepFloyd IF extend."""
