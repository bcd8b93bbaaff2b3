#!/usr/bin/env python3
"""Make a checkpoint that `AutoModel` loads from weights of the published code: `sind-hf convert`.

Example: python scripts/convert_sind_original_to_hf.py official.pth sind-clip-vit-b16
Exit codes: 0 done; 2 wrong usage, or the file cannot be converted.
"""

import sys

from sind_hf.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["convert"]
    main()
