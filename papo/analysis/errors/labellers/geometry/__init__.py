"""Labels of Geometry3K's responses by rule: what they state against what the diagram is annotated with."""
