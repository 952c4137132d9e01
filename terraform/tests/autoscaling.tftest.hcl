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

run "schedules_nothing_unasked" {
  command = plan
  module { source = "./modules/autoscaling" }

  assert {
    condition     = length(aws_appautoscaling_scheduled_action.this) == 0
    error_message = "There is a scheduled action that nobody asked for."
  }
}

run "schedules_bounds" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    scheduled_actions = {
      morning = { schedule = "cron(30 7 ? * MON-FRI *)", timezone = "Europe/Berlin", min_capacity = 3, max_capacity = 8 }
      night   = { schedule = "cron(0,30 20/1 1-15,20-28/2 JAN,MAR-DEC ? 2026-2030)", min_capacity = 1, max_capacity = 1 }
      once    = { schedule = "at(2026-12-24T18:00:00)", min_capacity = 1, max_capacity = 2 }
    }
  }
  assert {
    condition = alltrue([
      for action in aws_appautoscaling_scheduled_action.this :
      action.resource_id == "endpoint/classifier/variant/AllTraffic" &&
      action.scalable_dimension == "sagemaker:variant:DesiredInstanceCount" && action.service_namespace == "sagemaker"
    ])
    error_message = "The wrong variant is scheduled."
  }
  assert {
    condition = (
      { for name, action in aws_appautoscaling_scheduled_action.this : name => [
        action.schedule, action.timezone,
        tonumber(one(action.scalable_target_action).min_capacity), tonumber(one(action.scalable_target_action).max_capacity)
      ] } ==
      {
        morning = ["cron(30 7 ? * MON-FRI *)", "Europe/Berlin", 3, 8]
        night   = ["cron(0,30 20/1 1-15,20-28/2 JAN,MAR-DEC ? 2026-2030)", "UTC", 1, 1]
        once    = ["at(2026-12-24T18:00:00)", "UTC", 1, 2]
      }
    )
    error_message = "A scheduled action does not carry what was given."
  }
}

run "refuses_what_is_no_scheduled_action" {
  command = plan
  module { source = "./modules/autoscaling" }

  variables {
    scheduled_actions = {
      rate                  = { schedule = "rate(1 day)", min_capacity = 1, max_capacity = 1 }
      last_day              = { schedule = "cron(0 20 L * ? *)", min_capacity = 1, max_capacity = 1 }
      nearest_weekday       = { schedule = "cron(0 20 15W * ? *)", min_capacity = 1, max_capacity = 1 }
      nth_weekday           = { schedule = "cron(0 20 ? * 6#2 *)", min_capacity = 1, max_capacity = 1 }
      no_day                = { schedule = "cron(0 20 ? * ? *)", min_capacity = 1, max_capacity = 1 }
      two_days              = { schedule = "cron(0 20 1 * MON *)", min_capacity = 1, max_capacity = 1 }
      five_fields           = { schedule = "cron(0 20 ? * MON)", min_capacity = 1, max_capacity = 1 }
      no_date               = { schedule = "at(2026-02-30T18:00:00)", min_capacity = 1, max_capacity = 1 }
      a_zone                = { schedule = "at(2026-12-24T18:00:00Z)", min_capacity = 1, max_capacity = 1 }
      to_zero               = { schedule = "cron(0 20 * * ? *)", min_capacity = 0, max_capacity = 1 }
      minimum_above_maximum = { schedule = "cron(0 20 * * ? *)", min_capacity = 4, max_capacity = 3 }
      half_an_instance      = { schedule = "cron(0 20 * * ? *)", min_capacity = 1, max_capacity = 1.5 }
    }
  }
  expect_failures = [
    aws_appautoscaling_scheduled_action.this["rate"],
    aws_appautoscaling_scheduled_action.this["last_day"],
    aws_appautoscaling_scheduled_action.this["nearest_weekday"],
    aws_appautoscaling_scheduled_action.this["nth_weekday"],
    aws_appautoscaling_scheduled_action.this["no_day"],
    aws_appautoscaling_scheduled_action.this["two_days"],
    aws_appautoscaling_scheduled_action.this["five_fields"],
    aws_appautoscaling_scheduled_action.this["no_date"],
    aws_appautoscaling_scheduled_action.this["a_zone"],
    aws_appautoscaling_scheduled_action.this["to_zero"],
    aws_appautoscaling_scheduled_action.this["minimum_above_maximum"],
    aws_appautoscaling_scheduled_action.this["half_an_instance"],
  ]
}
