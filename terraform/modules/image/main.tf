# Where the hosting image lies, and a builder for those without a docker engine. Neither costs anything while there is
# no image and no build, so both are always there.

locals {
  # One object, of which each build names its version.
  source_key = "image/source.zip"
}

resource "aws_ecr_repository" "this" {
  name                 = "${var.name}-hosting"
  force_delete         = var.force_delete
  image_tag_mutability = "IMMUTABLE"

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = var.kms_key_arn
  }

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name

  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "What lost its tag, or never had one"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "The oldest images"
        selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.kept_images }
        action       = { type = "expire" }
      },
    ]
  })
}

resource "aws_codebuild_project" "this" {
  # checkov:skip=CKV_AWS_316:Building an image runs a docker daemon inside the build, which needs it; the role pushes to one repository and reads one object.
  name                   = "${var.name}-hosting"
  description            = "Builds, tests and pushes the hosting image from ${local.source_key} of the artifact bucket"
  build_timeout          = 30
  concurrent_build_limit = 1
  encryption_key         = var.kms_key_arn
  queued_timeout         = 30
  service_role           = var.role_arn

  # What is built goes to the repository.
  artifacts {
    type = "NO_ARTIFACTS"
  }

  # Outside the VPC: a build fetches its base image and packages from the internet, and has no way to the workloads.
  environment {
    compute_type    = "BUILD_GENERAL1_SMALL"
    image           = var.build_image
    privileged_mode = true
    type            = "LINUX_CONTAINER"

    environment_variable {
      name  = "REPOSITORY_URL"
      value = aws_ecr_repository.this.repository_url
    }
  }

  logs_config {
    cloudwatch_logs {
      group_name = aws_cloudwatch_log_group.this.name
    }
  }

  source {
    type      = "S3"
    location  = "${var.artifact_bucket}/${local.source_key}"
    buildspec = file("${path.module}/buildspec.yml")
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/${var.name}/builder"
  kms_key_id        = var.kms_key_arn
  retention_in_days = var.log_retention_days
}
