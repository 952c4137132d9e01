mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  account_id  = "123456789012"
  environment = "prod"
  name        = "pictures"
  partition   = "aws"
  region      = "eu-central-1"
  role_arns = {
    builder   = "arn:aws:iam::123456789012:role/pictures-builder"
    flow_logs = "arn:aws:iam::123456789012:role/pictures-flow-logs"
    hosting   = "arn:aws:iam::123456789012:role/pictures-hosting"
    lambda    = "arn:aws:iam::123456789012:role/pictures-lambda"
    notebook  = "arn:aws:iam::123456789012:role/pictures-notebook"
    trainer   = "arn:aws:iam::123456789012:role/pictures-trainer"
    training  = "arn:aws:iam::123456789012:role/pictures-training"
  }
}

run "the_key_admits_exactly_who_must_use_it" {
  command = plan

  module {
    source = "./modules/storage"
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && aws_kms_key.this.deletion_window_in_days == 30
    error_message = "The key rotates, and in prod waits thirty days before it is gone."
  }

  assert {
    condition = toset([for statement in jsondecode(aws_kms_key.this.policy).Statement : statement.Sid]) == toset([
      "AccountAdministration", "AlarmsToEncryptedTopic", "AutoScalingGrants", "AutoScalingVolumes", "LogGroups",
      "SageMakerGrants", "UseBuilder", "UseHosting", "UseLambda", "UseNotebook", "UseTrainer", "UseTraining",
    ])
    error_message = "The key policy gained or lost a statement."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_kms_key.this.policy).Statement : statement.Effect == "Allow" && statement.Principal != "*" && try(statement.Principal.AWS, "") != "*"])
    error_message = "The key policy admits anyone."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_kms_key.this.policy).Statement : statement if statement.Sid == "LogGroups"
      ]) == {
      Sid       = "LogGroups"
      Effect    = "Allow"
      Principal = { Service = "logs.eu-central-1.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
      Resource  = "*"
      Condition = {
        StringLike = {
          "kms:EncryptionContext:aws:logs:arn" = [
            "arn:aws:logs:eu-central-1:123456789012:log-group:/pictures/*",
            "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/pictures",
            "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/sagemaker/*",
          ]
        }
      }
    }
    error_message = "The region's logs service must be admitted, for this stack's groups only."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_kms_key.this.policy).Statement : statement if statement.Sid == "AlarmsToEncryptedTopic"
      ]) == {
      Sid       = "AlarmsToEncryptedTopic"
      Effect    = "Allow"
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
      Resource  = "*"
      Condition = {
        ArnLike      = { "aws:SourceArn" = "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:pictures-*" }
        StringEquals = { "aws:SourceAccount" = "123456789012" }
      }
    }
    error_message = "CloudWatch must be admitted for this account's alarms, or they are dropped silently."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this.policy).Statement :
      statement.Principal.AWS == "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
      if startswith(statement.Sid, "AutoScaling")
    ])
    error_message = "EC2 Auto Scaling makes the trainer's volume under its service-linked role."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this.policy).Statement :
      statement.Action == "kms:CreateGrant" && statement.Condition == { Bool = { "kms:GrantIsForAWSResource" = "true" } }
      if endswith(statement.Sid, "Grants")
    ])
    error_message = "Grants may only be made for AWS resources."
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_kms_key.this.policy).Statement : toset(statement.Principal.AWS) if statement.Sid == "SageMakerGrants"
    ]) == toset([var.role_arns["hosting"], var.role_arns["notebook"], var.role_arns["training"]])
    error_message = "SageMaker's three roles encrypt volumes by grant, and nobody else's."
  }

  assert {
    condition = { for statement in jsondecode(aws_kms_key.this.policy).Statement : statement.Principal.AWS => statement.Action if startswith(statement.Sid, "Use") } == {
      (var.role_arns["builder"])  = ["kms:Decrypt", "kms:DescribeKey"]
      (var.role_arns["hosting"])  = ["kms:Decrypt", "kms:DescribeKey"]
      (var.role_arns["lambda"])   = ["kms:Decrypt", "kms:GenerateDataKey"]
      (var.role_arns["notebook"]) = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
      (var.role_arns["trainer"])  = ["kms:Decrypt", "kms:GenerateDataKey"]
      (var.role_arns["training"]) = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
    }
    error_message = "A workload's use of the key changed."
  }
}

run "buckets_are_private_encrypted_versioned_and_tls_only" {
  command = plan

  module {
    source = "./modules/storage"
  }

  assert {
    condition     = aws_s3_bucket.artifacts.bucket == "pictures-123456789012-eu-central-1-artifacts" && aws_s3_bucket.logs.bucket == "pictures-123456789012-eu-central-1-logs"
    error_message = "Other parts build ARNs from these names."
  }

  assert {
    condition = alltrue([
      for block in [aws_s3_bucket_public_access_block.artifacts, aws_s3_bucket_public_access_block.logs] :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "Public access is blocked in all four ways."
  }

  assert {
    condition = alltrue([
      for versioning in [aws_s3_bucket_versioning.artifacts, aws_s3_bucket_versioning.logs] :
      versioning.versioning_configuration[0].status == "Enabled"
    ])
    error_message = "Both buckets are versioned."
  }

  assert {
    condition = alltrue([
      for controls in [aws_s3_bucket_ownership_controls.artifacts, aws_s3_bucket_ownership_controls.logs] :
      controls.rule[0].object_ownership == "BucketOwnerEnforced"
    ])
    error_message = "ACLs are off."
  }

  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.artifacts.rule :
      rule.bucket_key_enabled && one(rule.apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    ])
    error_message = "Artifacts are encrypted with the stack's key, with a bucket key."
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_server_side_encryption_configuration.logs.rule : one(rule.apply_server_side_encryption_by_default).sse_algorithm == "AES256"])
    error_message = "S3 delivers access logs to SSE-S3 buckets only."
  }

  assert {
    condition = alltrue([
      for policy in [aws_s3_bucket_policy.artifacts.policy, aws_s3_bucket_policy.logs.policy] : anytrue([
        for statement in jsondecode(policy).Statement :
        statement.Effect == "Deny" && statement.Action == "s3:*" && length(statement.Resource) == 2 && try(statement.Condition.Bool["aws:SecureTransport"], "") == "false"
      ])
    ])
    error_message = "Plain HTTP is refused on both buckets."
  }

  assert {
    condition = anytrue([
      for statement in jsondecode(aws_s3_bucket_policy.logs.policy).Statement :
      statement.Resource == "arn:aws:s3:::pictures-123456789012-eu-central-1-logs/artifacts/*"
      && statement.Condition.ArnEquals["aws:SourceArn"] == "arn:aws:s3:::pictures-123456789012-eu-central-1-artifacts"
      && statement.Condition.StringEquals["aws:SourceAccount"] == "123456789012"
      if statement.Effect == "Allow"
    ])
    error_message = "S3's log delivery may write under its prefix, for the artifact bucket only."
  }

  assert {
    condition = alltrue([
      for lifecycle in [aws_s3_bucket_lifecycle_configuration.artifacts, aws_s3_bucket_lifecycle_configuration.logs] :
      one(lifecycle.rule[0].abort_incomplete_multipart_upload).days_after_initiation == 7 && one(lifecycle.rule[0].noncurrent_version_expiration).noncurrent_days > 0
    ])
    error_message = "Unfinished uploads and old versions go away."
  }

  assert {
    condition     = !aws_s3_bucket.artifacts.force_destroy && !aws_s3_bucket.logs.force_destroy
    error_message = "In prod a bucket with content is not destroyed."
  }

  assert {
    condition     = length(aws_iam_service_linked_role.autoscaling) == 0
    error_message = "The service-linked role exists once per account; it is made on request only."
  }
}

run "disposable_outside_prod" {
  command = plan

  module {
    source = "./modules/storage"
  }

  variables {
    create_autoscaling_service_linked_role = true
    environment                            = "development"
  }

  assert {
    condition     = aws_s3_bucket.artifacts.force_destroy && aws_s3_bucket.logs.force_destroy && aws_kms_key.this.deletion_window_in_days == 7
    error_message = "Development cleans up after itself."
  }

  assert {
    condition     = one(aws_iam_service_linked_role.autoscaling).aws_service_name == "autoscaling.amazonaws.com"
    error_message = "The role that the key policy names can be made first."
  }
}

run "refuses_wrong_values" {
  command = plan

  module {
    source = "./modules/storage"
  }

  variables {
    account_id  = "1234"
    environment = "production"
    name        = "Pictures"
    role_arns   = { hosting = "arn:aws:iam::123456789012:role/pictures-hosting" }
  }

  expect_failures = [var.account_id, var.environment, var.name, var.role_arns]
}
