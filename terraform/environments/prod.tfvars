# On top of reference.tfvars: two instances at least, so that one zone's loss is not an outage.
environment              = "prod"
autoscaling_min_capacity = 2
