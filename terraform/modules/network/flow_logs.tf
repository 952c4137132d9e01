resource "aws_cloudwatch_log_group" "flow_logs" {
  name              = "/${var.name}/flow-logs"
  kms_key_id        = var.kms_key_arn
  retention_in_days = var.log_retention_days
}

resource "aws_flow_log" "this" {
  vpc_id          = aws_vpc.this.id
  traffic_type    = "ALL"
  log_destination = aws_cloudwatch_log_group.flow_logs.arn
  iam_role_arn    = var.flow_log_role_arn

  tags = { Name = var.name }
}
