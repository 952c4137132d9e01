# The figures of the reference configuration. Each stands here once; no variable has one of them as a default.
notebook_instance_type = "ml.t3.medium"
training_instance_type = "ml.m5.xlarge"
trainer_instance_type  = "m5.2xlarge"

endpoint_instance_type                    = "ml.m5.xlarge"
autoscaling_min_capacity                  = 1
autoscaling_max_capacity                  = 3
autoscaling_target_invocations_per_minute = 30
autoscaling_scale_in_cooldown_seconds     = 30
autoscaling_scale_out_cooldown_seconds    = 30

lambda_reserved_concurrency    = 5
lambda_provisioned_concurrency = 3
