"""What a picture, a video or a sound is made of: recognised, cleaned, checked, converted, never stored."""
