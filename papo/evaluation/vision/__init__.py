"""What the picture is worth, from one evaluation in several views."""
