mock_provider "aws" {}

variables {
  endpoint_arn                  = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/classifier"
  endpoint_name                 = "classifier"
  instance_type                 = "ml.m5.xlarge"
  max_capacity                  = 4
  min_capacity                  = 2
  scale_in_cooldown_seconds     = 60
  scale_out_cooldown_seconds    = 45
  target_invocations_per_minute = 120
  variant_name                  = "AllTraffic"
}

run "tracks_invocations_per_instance" {
  command = plan
  module { source = "./modules/autoscaling" }

  assert {
    condition = (
      aws_appautoscaling_target.this.resource_id == "endpoint/classifier/variant/AllTraffic" &&
      aws_appautoscaling_target.this.min_capacity == 2 && aws_appautoscaling_target.this.max_capacity == 4
    )
    error_message = "The wrong variant is scaled, or between the wrong bounds."
  }
  assert {
    condition = (
      one(one(aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration).predefined_metric_specification).predefined_metric_type == "SageMakerVariantInvocationsPerInstance" &&
      one(aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration).target_value == 120 &&
      one(aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration).scale_in_cooldown == 60 &&
      one(aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration).scale_out_cooldown == 45
    )
    error_message = "The policy does not carry the figures that were given."
  }
}

run "refuses_a_minimum_above_the_maximum" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    min_capacity = 5
  }
  expect_failures = [var.min_capacity]
}

run "refuses_to_scale_to_zero" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    min_capacity = 0
  }
  expect_failures = [var.min_capacity]
}

run "refuses_a_burstable_instance" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    instance_type = "ml.t2.medium"
  }
  expect_failures = [var.instance_type]
}

# ml.trn1 begins with a t as well, and scales.
run "accepts_a_trainium_instance" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    instance_type = "ml.trn1.2xlarge"
  }
}

run "refuses_negative_cooldowns" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    scale_in_cooldown_seconds  = -1
    scale_out_cooldown_seconds = -1
  }
  expect_failures = [var.scale_in_cooldown_seconds, var.scale_out_cooldown_seconds]
}

run "refuses_a_target_of_zero" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    target_invocations_per_minute = 0
  }
  expect_failures = [var.target_invocations_per_minute]
}
