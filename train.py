"""Train any model: ``python train.py experiment=NAME [group=option] [key=value]`` (see configs/)."""

from lightning_gen.training import main

if __name__ == "__main__":
    main()
