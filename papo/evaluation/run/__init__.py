"""One evaluation: every problem in every view, sampled, graded, kept, summed up."""
