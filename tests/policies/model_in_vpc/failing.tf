resource "aws_sagemaker_model" "failing" {
  enable_network_isolation = true
}
