"""Share runs through the Hugging Face hub: push them with a model card, and pull them."""
