resource "aws_sagemaker_endpoint_configuration" "passing" {
  production_variants {
    initial_instance_count = 2
  }

  tags = { Environment = "prod" }
}

resource "aws_appautoscaling_target" "passing" {
  service_namespace = "sagemaker"
  min_capacity      = 2
  max_capacity      = 3

  tags = { Environment = "prod" }
}

resource "aws_appautoscaling_scheduled_action" "passing" {
  name               = "night"
  service_namespace  = "sagemaker"
  resource_id        = "endpoint/classifier/variant/AllTraffic"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  schedule           = "cron(0 20 * * ? *)"

  scalable_target_action {
    min_capacity = 2
    max_capacity = 2
  }
}
