#!/usr/bin/env python3
"""Write manifests (data_json/<name>/all.json) of the datasets that a user has downloaded: `sind-hf data build`.

Example: python scripts/data_json_generator.py koniq10k --root ~/datasets --output data_json
Exit codes: 0 done; 1 some images or datasets could not be used, each is named; 2 wrong usage or nothing could be done.
"""

import sys

from sind_hf.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["data", "build"]
    main()
