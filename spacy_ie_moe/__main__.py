"""``python -m spacy_ie_moe``: the command ``spacy-ie-moe`` where it is not on the path."""

from .cli import main

if __name__ == "__main__":
    main()
