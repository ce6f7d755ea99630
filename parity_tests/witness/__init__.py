"""Truths that neither twin wrote: Hugging Face logits and MaxText parameter trees."""
