# The one key of the stack. Its policy is the only place where the workloads are given the use of it: their roles'
# policies say nothing of KMS, so that who may decrypt is read here and nowhere else.

locals {
  # What each workload does with the key, through S3, CodeBuild, SageMaker, Lambda and SQS.
  key_actions = {
    builder  = ["kms:Decrypt", "kms:DescribeKey"]
    hosting  = ["kms:Decrypt", "kms:DescribeKey"]
    lambda   = ["kms:Decrypt", "kms:GenerateDataKey"]
    notebook = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
    trainer  = ["kms:Decrypt", "kms:GenerateDataKey"]
    # SageMaker checks Encrypt before it writes a job's output under a customer's key.
    training = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
  }

  autoscaling_role_arn = "arn:${var.partition}:iam::${var.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"

  log_groups_arn = "arn:${var.partition}:logs:${var.region}:${var.account_id}:log-group:"

  # A grant may only hand the key on to an AWS service's own resource, such as an encrypted volume.
  for_aws_resources = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
}

# A key policy cannot name a role that does not exist.
resource "aws_iam_service_linked_role" "autoscaling" {
  count = var.create_autoscaling_service_linked_role ? 1 : 0

  aws_service_name = "autoscaling.amazonaws.com"
}

resource "aws_kms_key" "this" {
  description             = "${var.name}: artifacts, volumes, logs, queue, topic"
  deletion_window_in_days = local.disposable ? 7 : 30
  enable_key_rotation     = true

  # In a key policy, Resource "*" means this key.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          # AWS's default statement: without it the key could not be administered any more, and no one could deploy.
          Sid       = "AccountAdministration"
          Effect    = "Allow"
          Principal = { AWS = "arn:${var.partition}:iam::${var.account_id}:root" }
          Action    = "kms:*"
          Resource  = "*"
        },
        {
          Sid       = "LogGroups"
          Effect    = "Allow"
          Principal = { Service = "logs.${var.region}.amazonaws.com" }
          Action    = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
          Resource  = "*"
          Condition = {
            StringLike = {
              "kms:EncryptionContext:aws:logs:arn" = [
                "${local.log_groups_arn}/${var.name}/*",
                "${local.log_groups_arn}/aws/lambda/${var.name}",
                "${local.log_groups_arn}/aws/sagemaker/*",
              ]
            }
          }
        },
        {
          # An alarm publishes to the encrypted topic itself; without this it is dropped, silently.
          Sid       = "AlarmsToEncryptedTopic"
          Effect    = "Allow"
          Principal = { Service = "cloudwatch.amazonaws.com" }
          Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
          Resource  = "*"
          Condition = {
            ArnLike      = { "aws:SourceArn" = "arn:${var.partition}:cloudwatch:${var.region}:${var.account_id}:alarm:${var.name}-*" }
            StringEquals = { "aws:SourceAccount" = var.account_id }
          }
        },
        {
          # The EC2 trainer's volume is made by the group's service-linked role, not by the box.
          Sid       = "AutoScalingVolumes"
          Effect    = "Allow"
          Principal = { AWS = local.autoscaling_role_arn }
          Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
          Resource  = "*"
        },
        {
          Sid       = "AutoScalingGrants"
          Effect    = "Allow"
          Principal = { AWS = local.autoscaling_role_arn }
          Action    = "kms:CreateGrant"
          Resource  = "*"
          Condition = local.for_aws_resources
        },
        {
          # SageMaker encrypts the volumes of notebooks, jobs and endpoints by grant.
          Sid       = "SageMakerGrants"
          Effect    = "Allow"
          Principal = { AWS = [for workload in ["hosting", "notebook", "training"] : var.role_arns[workload]] }
          Action    = "kms:CreateGrant"
          Resource  = "*"
          Condition = local.for_aws_resources
        },
      ],
      [
        for workload, actions in local.key_actions : {
          Sid       = "Use${title(workload)}"
          Effect    = "Allow"
          Principal = { AWS = var.role_arns[workload] }
          Action    = actions
          Resource  = "*"
        }
      ]
    )
  })

  depends_on = [aws_iam_service_linked_role.autoscaling]
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.id
}
