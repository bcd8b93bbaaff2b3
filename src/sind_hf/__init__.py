"""SIND: no-reference image quality assessment for Hugging Face transformers."""
