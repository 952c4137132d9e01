locals {
  # Built from names, so that a plan knows the queue's policy.
  dead_letters_arn = "arn:${var.partition}:sqs:${var.region}:${var.account_id}:${var.name}-lambda-dead-letters"

  # A package that is missing is reported by the function's precondition, not by a failing hash.
  package_hash = fileexists(var.package_path) ? filebase64sha256(var.package_path) : null
}

# Made before the function, so that Lambda never makes one of its own: without retention and without the key.
resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-lambda-dead-letters"
  kms_master_key_id         = var.kms_key_arn
  message_retention_seconds = 1209600 # 14 days, the longest SQS keeps a message

  # Here and not as a resource of its own, so that the queue is never without it.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "sqs:*"
        Resource  = local.dead_letters_arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

# The policy was a resource of its own once. Destroying that would take the policy from the queue.
removed {
  from = aws_sqs_queue_policy.dead_letters

  lifecycle {
    destroy = false
  }
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_272: Code signing needs an AWS Signer profile per account; the package is pinned by its SHA-256 instead.
  function_name = var.name
  description   = "Fetches a picture and answers with the endpoint's classification."
  role          = var.role_arn

  filename         = var.package_path
  source_code_hash = local.package_hash
  handler          = "handler.lambda_handler"
  runtime          = var.runtime
  architectures    = [var.architecture]
  memory_size      = var.memory_mb
  timeout          = var.timeout_seconds

  # Provisioned concurrency takes a published version, never $LATEST.
  publish                        = true
  reserved_concurrent_executions = coalesce(var.reserved_concurrency, -1)

  kms_key_arn = var.kms_key_arn

  environment {
    variables = {
      ENDPOINT_NAME                = var.endpoint_name
      POWERTOOLS_METRICS_NAMESPACE = var.name
      POWERTOOLS_SERVICE_NAME      = var.name
      PRIVATE_HOSTS                = jsonencode(var.private_hosts)
    }
  }

  dead_letter_config {
    target_arn = aws_sqs_queue.dead_letters.arn
  }

  tracing_config {
    mode = "Active"
  }

  vpc_config {
    security_group_ids = [var.security_group_id]
    subnet_ids         = var.subnet_ids
  }

  depends_on = [aws_cloudwatch_log_group.this]

  lifecycle {
    precondition {
      condition     = local.package_hash != null
      error_message = "There is no Lambda package at ${var.package_path}. Run `make package`, or point package_path at an existing zip."
    }
  }
}

resource "aws_lambda_alias" "live" {
  name             = "live"
  description      = "The published version that callers invoke."
  function_name    = aws_lambda_function.this.function_name
  function_version = aws_lambda_function.this.version
}

resource "aws_lambda_provisioned_concurrency_config" "live" {
  count = var.provisioned_concurrency > 0 ? 1 : 0

  function_name                     = aws_lambda_function.this.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = var.provisioned_concurrency

  lifecycle {
    # The provider plans any pair of figures; AWS refuses this one in the middle of an apply.
    precondition {
      condition     = var.reserved_concurrency == null ? true : var.provisioned_concurrency <= var.reserved_concurrency
      error_message = "Provisioned concurrency (${var.provisioned_concurrency}) is above reserved concurrency (${coalesce(var.reserved_concurrency, 0)}). Lower the provisioned figure, raise the reserved one, or set the latter to null to reserve nothing."
    }
  }
}

resource "aws_lambda_function_event_invoke_config" "live" {
  function_name                = aws_lambda_function.this.function_name
  qualifier                    = aws_lambda_alias.live.name
  maximum_event_age_in_seconds = 3600
  maximum_retry_attempts       = 2
}
