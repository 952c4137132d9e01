resource "aws_sagemaker_model" "passing" {
  vpc_config {
    security_group_ids = ["sg-1"]
    subnets            = ["subnet-1"]
  }
}
