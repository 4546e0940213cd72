"""The text encoder `gpt2`: GPT-2's tokens."""
