"""Where raw files are, which case each belongs to, and how they come here."""
