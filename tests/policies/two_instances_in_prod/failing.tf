resource "aws_sagemaker_endpoint_configuration" "failing" {
  production_variants {
    initial_instance_count = 2
  }

  production_variants {
    initial_instance_count = 1
  }

  tags = { Environment = "prod" }
}

resource "aws_appautoscaling_target" "failing" {
  service_namespace = "sagemaker"
  min_capacity      = 1
  max_capacity      = 3

  tags = { Environment = "prod" }
}
