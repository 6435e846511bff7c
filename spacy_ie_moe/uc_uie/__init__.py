"""``uc_uie``: universal information extraction with a language model, in one format of frames and slots."""
