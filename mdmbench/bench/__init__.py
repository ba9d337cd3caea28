"""The harness measures itself: mdmbench bench."""
