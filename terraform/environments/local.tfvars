# On top of reference.tfvars: the account on a laptop.
environment     = "local"
trainer_dataset = "demo"
