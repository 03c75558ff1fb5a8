"""What single items compute for themselves, worked out by hand."""
