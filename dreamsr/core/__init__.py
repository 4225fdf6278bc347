"""Pure tensor code: no files, no printing, no global random state."""
