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
