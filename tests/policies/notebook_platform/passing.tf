resource "aws_sagemaker_notebook_instance" "passing" {
  platform_identifier = "notebook-al2023-v1"
}

resource "aws_sagemaker_notebook_instance" "passing_default" {
  name = "default"
}
