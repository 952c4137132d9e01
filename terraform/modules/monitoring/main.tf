locals {
  # CloudWatch measures ModelLatency in microseconds.
  model_latency_p99_microseconds = var.model_latency_p99_milliseconds * 1000

  endpoint_alarms = var.endpoint_name == null ? {} : {
    model-latency = {
      description = "p99 of the model's own latency is above ${var.model_latency_p99_milliseconds} ms."
      metric_name = "ModelLatency"
      statistic   = null
      percentile  = "p99"
      threshold   = local.model_latency_p99_microseconds
    }
    server-errors = {
      description = "The endpoint answers with 5XX."
      metric_name = "Invocation5XXErrors"
      statistic   = "Sum"
      percentile  = null
      threshold   = 0
    }
  }

  function_alarms = var.function_name == null ? {} : {
    lambda-errors = {
      description = "The function raises errors or runs into its timeout."
      namespace   = "AWS/Lambda"
      metric_name = "Errors"
      statistic   = "Sum"
      dimensions  = { FunctionName = var.function_name }
    }
    lambda-throttles = {
      description = "Invocations are refused: more arrive than the reserved concurrency serves."
      namespace   = "AWS/Lambda"
      metric_name = "Throttles"
      statistic   = "Sum"
      dimensions  = { FunctionName = var.function_name }
    }
    dead-letters = {
      description = "Asynchronous events were given up after their last retry and wait in the dead-letter queue."
      namespace   = "AWS/SQS"
      metric_name = "ApproximateNumberOfMessagesVisible"
      statistic   = "Maximum"
      dimensions  = { QueueName = var.dead_letter_queue_name }
    }
  }

  # What counts as unusual activity, by the metric it raises.
  unusual_activity = var.function_name == null ? {} : {
    AccessDenied = {
      description = "AWS denied a call of the function: its permissions were cut, or somebody tries what they do not allow."
      pattern     = "%AccessDenied%"
    }
    DeniedFetches = {
      description = "Somebody asked for a picture at a forbidden address: a private or metadata host, or another scheme than https."
      pattern     = "{ $.reason = \"fetch_denied\" }"
    }
  }

  # Built from names, so that a plan knows the topic's policy.
  topic_arn = "arn:${var.partition}:sns:${var.region}:${var.account_id}:${var.name}-alarms"

  account_wide_log_groups = var.sagemaker_log_groups ? ["NotebookInstances", "TrainingJobs"] : []
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AlarmsOfThisStack"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = local.topic_arn
        Condition = {
          ArnLike      = { "aws:SourceArn" = "arn:${var.partition}:cloudwatch:${var.region}:${var.account_id}:alarm:${var.name}-*" }
          StringEquals = { "aws:SourceAccount" = var.account_id }
        }
      },
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action = [ # SNS takes no sns:* here
          "sns:AddPermission",
          "sns:DeleteTopic",
          "sns:GetTopicAttributes",
          "sns:ListSubscriptionsByTopic",
          "sns:Publish",
          "sns:RemovePermission",
          "sns:SetTopicAttributes",
          "sns:Subscribe",
        ]
        Resource  = local.topic_arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

# The policy was a resource of its own once. Destroying that would take the policy from the topic.
removed {
  from = aws_sns_topic_policy.alarms

  lifecycle {
    destroy = false
  }
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

# Made before the endpoint writes its first line; SageMaker's own group would have neither retention nor key.
resource "aws_cloudwatch_log_group" "endpoint" {
  count = var.endpoint_name == null ? 0 : 1

  name              = "/aws/sagemaker/Endpoints/${var.endpoint_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

# Shared by all of the account's notebooks and training jobs, so one stack an account and region may own them.
resource "aws_cloudwatch_log_group" "account_wide" {
  for_each = toset(local.account_wide_log_groups)

  name              = "/aws/sagemaker/${each.value}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

# No traffic means no data, which is no fault: missing data never alarms. Two minutes of three keep one bad request
# from paging anybody or rolling a deployment back, and still fit into the deployment's baking time.
resource "aws_cloudwatch_metric_alarm" "endpoint" {
  for_each = local.endpoint_alarms

  alarm_name          = "${var.name}-endpoint-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/SageMaker"
  metric_name         = each.value.metric_name
  dimensions          = { EndpointName = var.endpoint_name, VariantName = var.variant_name }
  statistic           = each.value.statistic
  extended_statistic  = each.value.percentile
  period              = 60
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = local.function_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric_name
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_log_metric_filter" "unusual_activity" {
  for_each = local.unusual_activity

  name           = "${var.name}-${each.key}"
  log_group_name = var.function_log_group_name
  pattern        = each.value.pattern

  metric_transformation {
    namespace     = var.name
    name          = each.key
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "unusual_activity" {
  for_each = local.unusual_activity

  alarm_name          = "${var.name}-unusual-activity-${each.key}"
  alarm_description   = each.value.description
  namespace           = var.name
  metric_name         = aws_cloudwatch_log_metric_filter.unusual_activity[each.key].metric_transformation[0].name
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = var.unusual_activity_threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}
