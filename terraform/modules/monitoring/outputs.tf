output "endpoint_alarm_names" {
  description = "Names of the alarms that roll a deployment back. Whoever uses them waits for the alarms and the endpoint's log group."
  value       = [for alarm in aws_cloudwatch_metric_alarm.endpoint : alarm.alarm_name]
  depends_on  = [aws_cloudwatch_log_group.endpoint]
}

output "metric_namespace" {
  description = "CloudWatch namespace of the metrics DeniedFetches and AccessDenied."
  value       = var.name
}

output "topic_arn" {
  description = "ARN of the topic that all alarms report to."
  value       = aws_sns_topic.alarms.arn
}
