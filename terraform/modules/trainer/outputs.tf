output "autoscaling_group_name" {
  description = "The group: set its desired capacity to 1 and it trains once."
  value       = aws_autoscaling_group.this.name
}

output "launch_template_id" {
  description = "The launch template that carries the user-data."
  value       = aws_launch_template.this.id
}

output "log_group_name" {
  description = "Log group the box ships its logs to."
  value       = aws_cloudwatch_log_group.this.name
}
