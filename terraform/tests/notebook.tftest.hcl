mock_provider "aws" {}

variables {
  code_bucket       = "artifacts"
  code_key          = "code/0000000000000000000000000000000000000000000000000000000000000000.tar.gz"
  code_sha256       = "0000000000000000000000000000000000000000000000000000000000000000"
  instance_type     = "ml.t3.medium"
  kms_key_arn       = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  name              = "classifier"
  role_arn          = "arn:aws:iam::123456789012:role/classifier-notebook"
  security_group_id = "sg-1"
  subnet_id         = "subnet-1"
  submission = {
    bucket             = "artifacts"
    code_key           = "code/0000000000000000000000000000000000000000000000000000000000000000.tar.gz"
    image_uri          = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1"
    instance_type      = "ml.m5.xlarge"
    kms_key_arn        = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    name               = "classifier"
    region             = "us-east-1"
    role_arn           = "arn:aws:iam::123456789012:role/classifier-training"
    security_group_ids = ["sg-2"]
    subnet_ids         = ["subnet-1", "subnet-2"]
  }
}

run "notebook_is_locked_down" {
  command = plan
  module { source = "./modules/notebook" }

  assert {
    condition = (
      aws_sagemaker_notebook_instance.this.direct_internet_access == "Disabled" &&
      aws_sagemaker_notebook_instance.this.root_access == "Disabled" &&
      aws_sagemaker_notebook_instance.this.subnet_id == "subnet-1" &&
      aws_sagemaker_notebook_instance.this.kms_key_id == var.kms_key_arn &&
      one(aws_sagemaker_notebook_instance.this.instance_metadata_service_configuration).minimum_instance_metadata_service_version == "2"
    )
    error_message = "The notebook has root, the internet, an unencrypted volume or IMDSv1."
  }
}

run "refuses_a_start_script_above_the_limit" {
  command = plan
  module { source = "./modules/notebook" }

  variables {
    submission = {
      bucket             = "artifacts"
      code_key           = "code/0000000000000000000000000000000000000000000000000000000000000000.tar.gz"
      image_uri          = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1"
      instance_type      = "ml.m5.xlarge"
      kms_key_arn        = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
      name               = "classifier"
      region             = "us-east-1"
      role_arn           = "arn:aws:iam::123456789012:role/classifier-training"
      security_group_ids = ["sg-2"]
      subnet_ids         = [for number in range(1000) : "subnet-${number}"]
    }
  }
  expect_failures = [aws_sagemaker_notebook_instance_lifecycle_configuration.this]
}

run "refuses_an_unsupported_platform" {
  command = plan
  module { source = "./modules/notebook" }

  variables {
    platform_identifier = "notebook-al2-v2"
  }
  expect_failures = [var.platform_identifier]
}

run "refuses_an_idle_time_too_short_to_work_in" {
  command = plan
  module { source = "./modules/notebook" }

  variables {
    idle_minutes = 1
  }
  expect_failures = [var.idle_minutes]
}
