mock_provider "aws" {
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-1:123456789012:classifier-alarms" }
  }
}

variables {
  account_id              = "123456789012"
  alarm_emails            = ["oncall@example.com"]
  dead_letter_queue_name  = "classifier-lambda-dead-letters"
  endpoint_name           = "classifier"
  function_log_group_name = "/aws/lambda/classifier"
  function_name           = "classifier"
  kms_key_arn             = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  log_retention_days      = 365
  name                    = "classifier"
  partition               = "aws"
  region                  = "us-east-1"
}

run "latency_is_compared_in_microseconds" {
  command = plan
  module { source = "./modules/monitoring" }

  variables {
    model_latency_p99_milliseconds = 250
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.endpoint["model-latency"].threshold == 250000
    error_message = "ModelLatency is measured in microseconds; the alarm would fire at a thousandth of what was asked."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.endpoint["model-latency"].extended_statistic == "p99"
    error_message = "The alarm does not look at the slowest requests."
  }
}

run "alarms_reach_the_topic" {
  module { source = "./modules/monitoring" }

  assert {
    condition = alltrue([
      for alarm in concat(
        values(aws_cloudwatch_metric_alarm.endpoint),
        values(aws_cloudwatch_metric_alarm.function),
        values(aws_cloudwatch_metric_alarm.unusual_activity),
      ) : alarm.alarm_actions == toset([output.topic_arn]) && alarm.treat_missing_data == "notBreaching"
    ])
    error_message = "An alarm reports nowhere, or takes silence for a fault."
  }
  assert {
    condition = keys(aws_cloudwatch_metric_alarm.function) == ["dead-letters", "lambda-errors", "lambda-throttles"] && toset(output.endpoint_alarm_names) == toset([
      "classifier-endpoint-model-latency", "classifier-endpoint-server-errors",
    ])
    error_message = "An alarm is missing."
  }
  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == var.kms_key_arn
    error_message = "The topic is not encrypted with the stack's key."
  }
}

run "unusual_activity_is_counted_and_watched" {
  command = plan
  module { source = "./modules/monitoring" }

  assert {
    condition = { for name, filter in aws_cloudwatch_log_metric_filter.unusual_activity : name => filter.pattern } == {
      AccessDenied  = "%AccessDenied%"
      DeniedFetches = "{ $.reason = \"fetch_denied\" }"
    }
    error_message = "The filters do not match the lines the handler writes."
  }
  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.unusual_activity :
      alarm.namespace == "classifier" && alarm.metric_name == name && alarm.threshold == 1
    ])
    error_message = "The alarms look at another metric than the filters raise."
  }
}

run "without_a_release_there_is_only_the_topic" {
  command = plan
  module { source = "./modules/monitoring" }

  variables {
    dead_letter_queue_name  = null
    endpoint_name           = null
    function_log_group_name = null
    function_name           = null
  }

  assert {
    condition = length(concat(
      values(aws_cloudwatch_metric_alarm.endpoint),
      values(aws_cloudwatch_metric_alarm.function),
      values(aws_cloudwatch_metric_alarm.unusual_activity),
      aws_cloudwatch_log_group.endpoint,
    )) == 0
    error_message = "Something watches what does not exist."
  }
}

run "account_wide_log_groups_are_opt_in" {
  command = plan
  module { source = "./modules/monitoring" }

  assert {
    condition     = length(aws_cloudwatch_log_group.account_wide) == 0
    error_message = "Log groups that other stacks use as well were taken unasked."
  }
}

run "account_wide_log_groups_have_retention_and_key" {
  command = plan
  module { source = "./modules/monitoring" }

  variables {
    sagemaker_log_groups = true
  }

  assert {
    condition = toset([for group in aws_cloudwatch_log_group.account_wide : group.name]) == toset([
      "/aws/sagemaker/NotebookInstances", "/aws/sagemaker/TrainingJobs",
    ])
    error_message = "SageMaker writes to other groups."
  }
  assert {
    condition = alltrue([
      for group in concat(values(aws_cloudwatch_log_group.account_wide), aws_cloudwatch_log_group.endpoint) :
      group.retention_in_days == 365 && group.kms_key_id == var.kms_key_arn
    ])
    error_message = "A log group keeps its lines unencrypted, or for another time."
  }
}

run "refuses_an_unknown_retention" {
  command = plan
  module { source = "./modules/monitoring" }

  variables {
    log_retention_days = 100
  }
  expect_failures = [var.log_retention_days]
}

run "refuses_a_function_without_its_log_group" {
  command = plan
  module { source = "./modules/monitoring" }

  variables {
    function_log_group_name = null
  }
  expect_failures = [var.function_name]
}

run "refuses_what_is_no_address" {
  command = plan
  module { source = "./modules/monitoring" }

  variables {
    alarm_emails = ["oncall"]
  }
  expect_failures = [var.alarm_emails]
}
