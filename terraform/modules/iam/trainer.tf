# The EC2 trainer: code and pictures in, a release out, and away.

resource "aws_iam_role" "trainer" {
  name                 = "${var.name}-trainer"
  description          = "EC2 trainer: read code and data sets, write releases and checkpoints, terminate itself"
  assume_role_policy   = local.trust["ec2"]
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_instance_profile" "trainer" {
  name = "${var.name}-trainer"
  role = aws_iam_role.trainer.name
}

resource "aws_iam_role_policy" "trainer" {
  name = "trainer"
  role = aws_iam_role.trainer.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # Its own releases and checkpoints too: what is there already is not sent again.
        Sid    = "ReadArtifacts"
        Effect = "Allow"
        Action = "s3:GetObject"
        Resource = [
          "${local.bucket_arn}/code/*",
          "${local.bucket_arn}/datasets/*",
          "${local.bucket_arn}/releases/*",
          "${local.bucket_arn}/trainer/checkpoints/*",
        ]
      },
      {
        # Without it a missing key is answered 403 instead of 404.
        Sid       = "ListArtifacts"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = local.bucket_arn
        Condition = { StringLike = { "s3:prefix" = ["datasets/*", "releases/*", "trainer/checkpoints/*"] } }
      },
      {
        Sid    = "WriteReleasesCheckpointsAndLogs"
        Effect = "Allow"
        Action = ["s3:AbortMultipartUpload", "s3:PutObject"]
        Resource = [
          "${local.bucket_arn}/releases/*",
          "${local.bucket_arn}/trainer/checkpoints/*",
          "${local.bucket_arn}/trainer/logs/*",
        ]
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.logs_arn}:log-group:/${var.name}/trainer:*"
      },
      {
        Sid      = "TerminateItself"
        Effect   = "Allow"
        Action   = "autoscaling:TerminateInstanceInAutoScalingGroup"
        Resource = "${local.autoscaling_arn}:autoScalingGroup:*:autoScalingGroupName/${var.name}-trainer"
      },
    ]
  })
}
