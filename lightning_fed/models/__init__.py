"""Networks, the registry that builds them, and the LightningModule that trains them."""
