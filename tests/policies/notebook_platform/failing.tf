resource "aws_sagemaker_notebook_instance" "failing" {
  platform_identifier = "notebook-al1-v1"
}
