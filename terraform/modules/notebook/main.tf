locals {
  on_start = templatefile("${path.module}/templates/on-start.sh.tftpl", {
    code_bucket    = var.code_bucket
    code_key       = var.code_key
    code_sha256    = var.code_sha256
    idle_minutes   = var.idle_minutes
    name           = var.name
    region         = var.submission.region
    stop_when_idle = trimspace(file("${path.module}/templates/stop_when_idle.py"))
    submission     = jsonencode(var.submission)
  })
}

# A change of the script takes effect at the notebook's next start.
resource "aws_sagemaker_notebook_instance_lifecycle_configuration" "this" {
  name     = var.name
  on_start = base64encode(local.on_start)

  lifecycle {
    precondition {
      condition     = length(base64encode(local.on_start)) <= 16384
      error_message = "The notebook's start script has ${length(base64encode(local.on_start))} characters in base64; SageMaker takes 16384. Shorten the submission object or the templates."
    }
  }
}

resource "aws_sagemaker_notebook_instance" "this" {
  # checkov:skip=CKV2_AWS_68:The check cannot follow the role into the module it is made in; module iam grants it named resources only.
  name          = var.name
  instance_type = var.instance_type
  role_arn      = var.role_arn

  platform_identifier   = var.platform_identifier
  lifecycle_config_name = aws_sagemaker_notebook_instance_lifecycle_configuration.this.name
  volume_size           = var.volume_gb
  kms_key_id            = var.kms_key_arn

  direct_internet_access = "Disabled"
  root_access            = "Disabled"
  security_groups        = [var.security_group_id]
  subnet_id              = var.subnet_id

  instance_metadata_service_configuration {
    minimum_instance_metadata_service_version = "2"
  }
}
