mock_provider "aws" {
  source = "./tests/mocks"

  mock_resource "aws_ecr_repository" {
    defaults = {
      repository_url = "123456789012.dkr.ecr.us-east-1.amazonaws.com/pictures-hosting"
    }
  }
}

variables {
  artifact_bucket = "pictures-123456789012-us-east-1-artifacts"
  kms_key_arn     = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  name            = "pictures"
  role_arn        = "arn:aws:iam::123456789012:role/pictures-builder"
}

run "images_are_immutable_scanned_and_encrypted" {
  command = plan

  module {
    source = "./modules/image"
  }

  assert {
    condition = (
      aws_ecr_repository.this.name == "pictures-hosting"
      && aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE"
      && one(aws_ecr_repository.this.image_scanning_configuration).scan_on_push
      && one(aws_ecr_repository.this.encryption_configuration).encryption_type == "KMS"
      && one(aws_ecr_repository.this.encryption_configuration).kms_key == var.kms_key_arn
    )
    error_message = "A tag can be moved, a push is not scanned, or the repository is not under the stack's key."
  }

  assert {
    condition     = !aws_ecr_repository.this.force_delete
    error_message = "A destroy takes images only where that was asked for."
  }

  assert {
    condition = [for rule in jsondecode(aws_ecr_lifecycle_policy.this.policy).rules : [rule.selection.tagStatus, rule.selection.countType, rule.selection.countNumber]] == [
      ["untagged", "sinceImagePushed", 14], ["any", "imageCountMoreThan", 30],
    ]
    error_message = "Images pile up, or go too soon."
  }
}

run "a_build_takes_one_object_and_leaves_an_image" {
  command = apply

  module {
    source = "./modules/image"
  }

  assert {
    condition = (
      one(aws_codebuild_project.this.source).type == "S3"
      && one(aws_codebuild_project.this.source).location == "pictures-123456789012-us-east-1-artifacts/image/source.zip"
      && one(aws_codebuild_project.this.artifacts).type == "NO_ARTIFACTS"
      && aws_codebuild_project.this.service_role == var.role_arn
      && aws_codebuild_project.this.encryption_key == var.kms_key_arn
      && length(aws_codebuild_project.this.vpc_config) == 0
    )
    error_message = "The build reads the source archive under its own role, and has no way into the VPC."
  }

  assert {
    condition = [for variable in one(aws_codebuild_project.this.environment).environment_variable : [variable.name, variable.value]] == [
      ["REPOSITORY_URL", "123456789012.dkr.ecr.us-east-1.amazonaws.com/pictures-hosting"],
    ]
    error_message = "The build is told its repository, and no secret."
  }

  assert {
    condition = (
      one(one(aws_codebuild_project.this.logs_config).cloudwatch_logs).group_name == "/pictures/builder"
      && aws_cloudwatch_log_group.this.name == "/pictures/builder"
      && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn
      && aws_cloudwatch_log_group.this.retention_in_days == 365
    )
    error_message = "Its log goes to a group of the stack's, encrypted, for a year."
  }

  assert {
    condition     = aws_codebuild_project.this.build_timeout == 30 && aws_codebuild_project.this.concurrent_build_limit == 1
    error_message = "A build that hangs is paid for by the minute."
  }

  assert {
    condition     = output.project_name == "pictures-hosting" && output.repository_url == "123456789012.dkr.ecr.us-east-1.amazonaws.com/pictures-hosting"
    error_message = "What builds and pushes the image goes by these."
  }
}

run "an_untested_image_is_not_pushed" {
  command = plan

  module {
    source = "./modules/image"
  }

  assert {
    condition = [
      for command in yamldecode(one(aws_codebuild_project.this.source).buildspec).phases.build.commands : regex("^(image=|docker build|python3 container/test/image.py|aws ecr get-login-password|docker push)", command)[0]
    ] == ["image=", "docker build", "python3 container/test/image.py", "aws ecr get-login-password", "docker push"]
    error_message = "Build, test and push, in one phase, which ends at the first that fails."
  }
}

run "refuses_wrong_values" {
  command = plan

  module {
    source = "./modules/image"
  }

  variables {
    build_image = "docker.io/library/docker:latest"
    kept_images = 1
  }

  expect_failures = [var.build_image, var.kept_images]
}
