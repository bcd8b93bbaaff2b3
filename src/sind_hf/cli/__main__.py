"""`python -m sind_hf.cli`, and `accelerate launch -m sind_hf.cli`."""

from sind_hf.cli import main

if __name__ == "__main__":
    main()
