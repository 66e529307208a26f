"""An ordinary Flower app: learns the roll force of plate mills from the pass records of several."""
