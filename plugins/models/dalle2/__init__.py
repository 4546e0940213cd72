"""The model `dalle2`: unCLIP."""
