"""Rollups to pictures and one self-contained page. No I/O: values in, text and bytes out."""
