"""The LongVideo dataset: captioned short videos joined into captioned long ones (section 3.3)."""
