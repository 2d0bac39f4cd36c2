"""What three domains use, or the house's machinery; no business."""
