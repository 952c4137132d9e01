locals {
  # What `python -m capacity simulate` reads of AWS's cron: not L, W and #. One of the two days must be left open.
  cron_field = replace("(\\*|N(-N)?)(/[0-9]+)?", "N", "([0-9]+|[A-Z]{3})")
  cron_list  = "${local.cron_field}(,${local.cron_field})*"
  cron       = replace("^cron\\(F F (F F \\?|\\? F F) F\\)$", "F", local.cron_list)
}

# Application Auto Scaling refuses an update that changes the instance type of a registered variant. So the target goes
# away before such an update and comes back after it; a change of the model alone leaves it untouched.
resource "terraform_data" "variant" {
  input = {
    endpoint_arn  = var.endpoint_arn
    instance_type = var.instance_type
  }
}

# The bounds as they were given. What a scheduled action made of them is not taken back by the next apply, which may be
# that of a new release in the busiest hour; new ones make the target anew.
resource "terraform_data" "bounds" {
  input = {
    max_capacity = var.max_capacity
    min_capacity = var.min_capacity
  }
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "sagemaker"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  resource_id        = "endpoint/${var.endpoint_name}/variant/${var.variant_name}"
  min_capacity       = var.min_capacity
  max_capacity       = var.max_capacity

  lifecycle {
    ignore_changes       = [max_capacity, min_capacity]
    replace_triggered_by = [terraform_data.bounds, terraform_data.variant]
  }
}

resource "aws_appautoscaling_policy" "this" {
  name               = "invocations-per-instance"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  resource_id        = aws_appautoscaling_target.this.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.target_invocations_per_minute
    scale_in_cooldown  = var.scale_in_cooldown_seconds
    scale_out_cooldown = var.scale_out_cooldown_seconds

    predefined_metric_specification {
      predefined_metric_type = "SageMakerVariantInvocationsPerInstance"
    }
  }

  lifecycle {
    # Deregistering a target deletes its policies on AWS's side.
    replace_triggered_by = [aws_appautoscaling_target.this.arn]
  }
}

resource "aws_appautoscaling_scheduled_action" "this" {
  for_each = var.scheduled_actions

  name               = each.key
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  resource_id        = aws_appautoscaling_target.this.resource_id
  schedule           = each.value.schedule
  timezone           = each.value.timezone

  scalable_target_action {
    max_capacity = each.value.max_capacity
    min_capacity = each.value.min_capacity
  }

  lifecycle {
    # It deletes the scheduled actions too.
    replace_triggered_by = [aws_appautoscaling_target.this.arn]

    precondition {
      condition     = can(formatdate("YYYY", "${one(regex("^at\\((.*)\\)$", each.value.schedule))}Z")) || can(regex(local.cron, each.value.schedule))
      error_message = "Scheduled action ${each.key}: schedule is ${each.value.schedule}; write at(2026-12-24T18:00:00), or cron(minutes hours day-of-month month day-of-week year) such as cron(0 20 ? * MON-FRI *), with ? for one of the two days and without L, W and #."
    }
    precondition {
      condition     = each.value.min_capacity >= 1 && floor(each.value.min_capacity) == each.value.min_capacity
      error_message = "Scheduled action ${each.key}: min_capacity is ${each.value.min_capacity}; a real-time endpoint keeps a whole number of instances, at least 1."
    }
    precondition {
      condition     = each.value.min_capacity <= each.value.max_capacity && floor(each.value.max_capacity) == each.value.max_capacity
      error_message = "Scheduled action ${each.key}: max_capacity is ${each.value.max_capacity}; give a whole number from its min_capacity (${each.value.min_capacity}) on."
    }
  }
}
