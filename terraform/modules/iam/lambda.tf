# The Lambda: fetches a picture, asks the endpoint. Its log group is Terraform's, so it may not make one.

resource "aws_iam_role" "lambda" {
  name                 = "${var.name}-lambda"
  description          = "Lambda function: invoke the endpoint"
  assume_role_policy   = local.trust["lambda"]
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "lambda" {
  name = "lambda"
  role = aws_iam_role.lambda.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "InvokeEndpoint"
        Effect   = "Allow"
        Action   = "sagemaker:InvokeEndpoint"
        Resource = "${local.sagemaker_arn}:endpoint/${var.name}"
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.logs_arn}:log-group:/aws/lambda/${var.name}:*"
      },
      {
        Sid      = "SendDeadLetters"
        Effect   = "Allow"
        Action   = "sqs:SendMessage"
        Resource = "${local.sqs_arn}:${var.name}-lambda-dead-letters"
      },
      {
        Sid      = "SendTraces"
        Effect   = "Allow"
        Action   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
        Resource = "*" # X-Ray's write actions have no resource level.
      },
      {
        Sid    = "ManageNetworkInterfaces"
        Effect = "Allow"
        Action = [
          "ec2:AssignPrivateIpAddresses",
          "ec2:CreateNetworkInterface",
          "ec2:DeleteNetworkInterface",
          "ec2:UnassignPrivateIpAddresses",
        ]
        Resource = local.network_resources
      },
      {
        Sid      = "DescribeNetwork"
        Effect   = "Allow"
        Action   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
        Resource = "*" # EC2's Describe actions have no resource level.
      },
      {
        # The interfaces are the Lambda service's business. The function's own code, and whoever takes it over, may not
        # touch them.
        Sid    = "KeepFunctionCodeOffTheNetwork"
        Effect = "Deny"
        Action = [
          "ec2:AssignPrivateIpAddresses",
          "ec2:CreateNetworkInterface",
          "ec2:DeleteNetworkInterface",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeSubnets",
          "ec2:UnassignPrivateIpAddresses",
        ]
        Resource  = "*"
        Condition = { ArnEquals = { "lambda:SourceFunctionArn" = "${local.lambda_arn}:function:${var.name}" } }
      },
    ]
  })
}
