#!/usr/bin/env python3
"""Push a checkpoint to the Hub with its code and its model card: `sind-hf push`.

Example: python scripts/push_to_hub.py runs/koniq --repo-id user/sind-clip-vit-b16-koniq10k --license mit
Exit codes: 0 done; 2 wrong usage, or the Hub refused or could not be reached.
"""

import sys

from sind_hf.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["push"]
    main()
