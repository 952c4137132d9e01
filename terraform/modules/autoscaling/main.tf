# Application Auto Scaling refuses an update that changes the instance type of a registered variant. So the target goes
# away before such an update and comes back after it; a change of the model alone leaves it untouched.
resource "terraform_data" "variant" {
  input = {
    endpoint_arn  = var.endpoint_arn
    instance_type = var.instance_type
  }
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "sagemaker"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  resource_id        = "endpoint/${var.endpoint_name}/variant/${var.variant_name}"
  min_capacity       = var.min_capacity
  max_capacity       = var.max_capacity

  lifecycle {
    replace_triggered_by = [terraform_data.variant]
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
